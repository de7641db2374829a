-- An agent (one slot) introduces itself; whatever an earlier session of the same id held is void at once.
-- KEYS[1] sweep hash · args: sid, agent, session, host, pid
-- returns {outcome: 'ok' | 'unknown' | 'late' (this session was replaced by another, or left), released: [run ids]}
-- from → to: runs of the old session: running → crashed, preempted · preempting → preempted, failed
-- include: base, sweeps, runs, stopping, ending
local sid = args.sid
if redis.call('EXISTS', KEYS[1]) == 0 then return reply({ outcome = 'unknown' }) end
if redis.call('EXISTS', left_key(sid, args.agent, args.session)) == 1 then return reply({ outcome = 'late' }) end
local old = load_agent(sid, args.agent)
local released = {}
local past = {}
if old then
  past = old.past or {}
  for _, session in ipairs(past) do
    if session == args.session then return reply({ outcome = 'late' }) end
  end
  if old.session == args.session then return reply({ outcome = 'ok' }) end
  table.insert(past, 1, old.session)
  past[9] = nil
  local rid = old.run
  local run = given(rid) and load_run(rid)
  if run and OWNED[run.state] and run.agent == args.agent and string.match(run.nonce, '^([^.]+)%.') == old.session then
    finish_attempt(rid, run, { lost = true, reason = 'its agent was started again' })
    -- The old process is gone for good: nothing of it may come back, so its token is stale from now on.
    redis.call('HSET', run_key(rid), 'nonce', '')
    redis.call('HDEL', run_key(rid), 'lapsed', 'was_preempting', 'assumed')
    released[1] = rid
  end
end
save_agent(sid, args.agent, { session = args.session, seq = 0, claimed = '', attempt = 0, run = '', waiting = false,
  host = args.host, pid = args.pid, past = #past > 0 and past or nil })
return reply({ outcome = 'ok', released = #released > 0 and released or nil })
