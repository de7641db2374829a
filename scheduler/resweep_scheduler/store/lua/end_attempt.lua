-- The owner says how its attempt ended; what follows is decided here, once. An owner whose lease ran out while nobody took
-- the run may still say it.
-- KEYS[1] run hash · args: run_id, attempt, nonce, exit_code | absent (no status), signal | absent, reason, preempted, killed
-- returns {hold: owner (recorded now) | ended (recorded before) | stale | gone, state, reason}
-- from → to: running → finished, failed, crashed, killed, preempted · preempting → finished, preempted, failed, killed
-- include: base, sweeps, runs, ending
local run = load_run(args.run_id)
local hold = hold_of(run, args.attempt, args.nonce)
if hold == 'lapsed' then
  restore_counts(args.run_id)
  run, hold = load_run(args.run_id), 'owner'
end
if hold ~= 'owner' then
  return reply({ hold = hold, state = run and run.state, reason = run and run.reason })
end
-- Whoever can say how a child ended has launched it, even if no heartbeat came through.
run.confirmed = '1'
local state, reason = finish_attempt(args.run_id, run, {
  exit_code = args.exit_code, signal = args.signal, reason = args.reason, preempted = args.preempted, killed = args.killed,
})
return reply({ hold = 'owner', state = state, reason = reason })
