-- The end of a run outside any sweep, as its script says it. Inside a sweep the agent says it (end_attempt).
-- KEYS[1] run hash · args: run_id, attempt, nonce, exit_code
-- returns {hold, state, reason}
-- from → to: running → finished, failed
-- include: base, runs
local run = load_run(args.run_id)
local hold = hold_of(run, args.attempt, args.nonce)
if hold == 'owner' and not given(run.sweep) then
  set_run_state(args.run_id, run, args.exit_code == 0 and 'finished' or 'failed')
  redis.call('HSET', KEYS[1], 'ended', int(now), 'exit_code', int(args.exit_code))
  redis.call('HINCRBY', KEYS[1], 'busy_ms', int(math.max(0, now - tonumber(run.claimed))))
end
return reply({ hold = hold, state = run and run.state, reason = '' })
