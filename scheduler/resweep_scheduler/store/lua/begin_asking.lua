-- Who computes the next suggestions: one session at a time, for all that wait. Only an optimisation: suggestions are taken
-- once for each index, whoever makes them, so that two who compute at once do no harm.
-- KEYS[1] sweep hash · args: sid, session, agents (that wait), hold_ms, alone (wait for no service), service (it is one),
--   only_wait (others must compute)
-- returns {outcome: 'ask' (compute) | 'claim' (runs are there) | 'hand_over' (call the service) | 'wait' | 'unknown',
--   wanted (runs), next_index, served (a service looks after the sweep)}
-- from → to: none
-- include: base, sweeps, asking
local sid, key = args.sid, sweep_key(args.sid, 'asking')
local sweep = redis.call('HMGET', KEYS[1], 'state', 'next_index', 'closed')
if not sweep[1] then return reply({ outcome = 'unknown' }) end

local served = redis.call('EXISTS', sweep_key(sid, 'service')) == 1
local is_service = args.service or false

local function answer(outcome)
  return reply({ outcome = outcome, next_index = tonumber(sweep[2]), served = served,
    wanted = math.max(1, redis.call('ZCARD', sweep_key(sid, 'askers'))) })
end

if not is_service and (given(sweep[3]) or redis.call('LLEN', sweep_key(sid, 'ready')) > 0) then return answer('claim') end
add_askers(sid, args.agents or {})
local holder = redis.call('GET', key)
-- What was handed over is nobody's yet: a service takes it, and so does who gave up waiting for one.
local free = not holder or holder == args.session or holder == HANDED_OVER and (is_service or args.alone)
if not free then return answer('wait') end
if served and not is_service and not args.alone then
  redis.call('SET', key, HANDED_OVER, 'PX', 1000)
  return answer('hand_over')
end
if args.only_wait then return answer('wait') end
redis.call('SET', key, args.session, 'PX', int(args.hold_ms))
return answer('ask')
