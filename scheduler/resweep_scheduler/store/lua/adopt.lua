-- An owner that was away (network, Redis, a rollback of Redis) gets its run back if nobody took it meanwhile.
-- After a rollback the record may show an older claim or none: the newer claim wins, known by the Redis time of the claim.
-- KEYS[1] run hash · args: sid, agent, run_id, attempt, nonce, claimed_at, lease_ms
-- returns {hold: owner | stale | gone | ended, stop, preempting}
-- from → to: preempted, crashed, failed (each only after a lost lease) → running · pending → running (after a rollback)
-- include: base, clock, sweeps, runs
local rid, sid = args.run_id, args.sid
local run = load_run(rid)
local hold = hold_of(run, args.attempt, args.nonce)

local function claimed_before()
  if run.attempt > args.attempt or run.nonce == args.nonce then return false end
  if run.state == 'pending' or run.state == 'preempted' then return run.attempt < args.attempt end
  return OWNED[run.state] and run.attempt < args.attempt and (tonumber(run.claimed) or 0) <= args.claimed_at
end

if hold == 'stale' and claimed_before() then hold = 'lapsed' end
if hold == 'lapsed' and was_replaced(sid, args.agent, args.nonce) then hold = 'stale' end
if hold ~= 'lapsed' then
  return reply({ hold = hold, stop = run and run.stop or '', preempting = run ~= nil and run.state == 'preempting' })
end

local before = run.state
local clock = lease_clock(sid)
redis.call('LREM', sweep_key(sid, 'queue'), 0, rid)
redis.call('LREM', sweep_key(sid, 'ready'), 0, rid)
local was_preempting = false
if run.nonce == args.nonce then
  was_preempting = run.was_preempting == '1'
  restore_counts(rid)
else
  redis.call('HSET', KEYS[1], 'seq', '0')
  free_agent(sid, run.agent, rid)
end
run.attempt, run.nonce, run.agent = args.attempt, args.nonce, args.agent
redis.call('HSET', KEYS[1], 'attempt', int(run.attempt), 'nonce', run.nonce, 'agent', run.agent,
  'claimed', int(args.claimed_at), 'confirmed', '1', 'reason', '')
redis.call('HDEL', KEYS[1], 'lapsed', 'was_preempting', 'ended', 'exit_code', 'signal')
redis.call('ZADD', sweep_key(sid, 'leases'), int(clock + args.lease_ms), rid)
local after = was_preempting and 'preempting' or 'running'
set_run_state(rid, run, after)
event(sid, 'adopted', rid, run, before, after, nil)
local agent = load_agent(sid, args.agent)
if agent then
  agent.run, agent.waiting = rid, false
  save_agent(sid, args.agent, agent)
end
reopen_sweep(sid)
if redis.call('HGET', sweep_key(sid), 'state') == 'canceled' then
  run.stop = 'canceled'
  redis.call('HSET', KEYS[1], 'stop', run.stop)
end
return reply({ hold = 'owner', stop = run.stop, preempting = was_preempting })
