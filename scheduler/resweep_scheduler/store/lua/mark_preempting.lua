-- From here on any end of the attempt but exit 0 puts the run back on the run queue.
-- KEYS[1] run hash · args: run_id, attempt, nonce, reason, source | absent, lead_ms | absent
-- returns {hold, stop}
-- from → to: running → preempting
-- include: base, sweeps, runs
local run = load_run(args.run_id)
local hold = hold_of_writer(run, args.attempt, args.nonce)
if hold == 'owner' and run.state == 'running' then
  set_run_state(args.run_id, run, 'preempting')
  confirm(args.run_id, run)
  event(run.sweep, 'preempting', args.run_id, run, 'running', 'preempting',
    { reason = args.reason, source = args.source, lead_ms = args.lead_ms })
end
return reply({ hold = hold, stop = run and run.stop or '' })
