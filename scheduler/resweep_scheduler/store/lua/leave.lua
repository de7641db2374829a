-- An agent (one slot) goes home and claims nothing more; late calls of its session, and of those before it, find it gone.
-- KEYS[1] sweep hash · args: sid, agent, session
-- returns {outcome: 'ok'}
-- from → to: none
-- include: base, runs
local function remember(session) redis.call('SET', left_key(args.sid, args.agent, session), '1', 'PX', 600000) end

local record = load_agent(args.sid, args.agent)
if record and record.session == args.session then
  for _, session in ipairs(record.past or {}) do remember(session) end
  redis.call('HDEL', sweep_key(args.sid, 'agents'), args.agent)
  redis.call('ZREM', sweep_key(args.sid, 'seen'), args.agent)
end
remember(args.session)
return reply({ outcome = 'ok' })
