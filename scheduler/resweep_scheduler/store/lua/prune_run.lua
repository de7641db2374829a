-- Early termination that was decided outside Redis, by one of Optuna's pruners: the owner's agent ends the run.
-- KEYS[1] run hash · args: run_id, attempt, nonce, iteration (the last one that the decision knew),
--   data {reason, rule, …} | absent: the run goes on, notes (JSON, what the pruner keeps of the run) | absent
-- returns {hold, stop}
-- from → to: none: the run stays until its agent ended the child (→ killed)
-- include: base, sweeps, runs, stopping
local run = load_run(args.run_id)
local hold = hold_of(run, args.attempt, args.nonce)
-- A curve that was cut meanwhile is another one than the decision was about.
if hold == 'owner' and redis.call('LLEN', run_key(args.run_id, 'curve')) >= args.iteration then
  if given(args.notes) then redis.call('HSET', KEYS[1], 'notes', args.notes) end
  if args.data and may_be_stopped(run) then stop_early(args.run_id, run, args.data) end
end
return reply({ hold = hold, stop = run and run.stop or '' })
