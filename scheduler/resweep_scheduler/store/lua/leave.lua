-- An agent (one slot) goes home and claims nothing more; late calls of its session find it gone.
-- KEYS[1] sweep hash · args: sid, agent, session
-- returns {outcome: 'ok'}
-- from → to: none
-- include: base, runs
local record = load_agent(args.sid, args.agent)
if record and record.session == args.session then
  redis.call('HDEL', sweep_key(args.sid, 'agents'), args.agent)
  redis.call('ZREM', sweep_key(args.sid, 'seen'), args.agent)
end
redis.call('SET', left_key(args.sid, args.agent, args.session), '1', 'PX', 600000)
return reply({ outcome = 'ok' })
