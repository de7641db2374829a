-- A person or early termination ends a run: at once when nobody owns it, else its agent is told and ends it.
-- KEYS[1] run hash · args: run_id, reason
-- returns {outcome: 'ok' | 'gone', state}
-- from → to: pending, preempted → killed · running, preempting: stays until its agent ended the child (→ killed)
-- include: base, sweeps, runs, stopping, ending
local run = load_run(args.run_id)
if not run then return reply({ outcome = 'gone' }) end
-- An owner that was given up for dead may still come back: it must then hear of the stop.
if OWNED[run.state] or (run.lapsed == '1' and (run.state == 'crashed' or run.state == 'failed')) then
  if run.stop ~= args.reason then
    redis.call('HSET', KEYS[1], 'stop', args.reason)
    event(run.sweep, 'stop', args.run_id, run, run.state, run.state, { reason = args.reason })
  end
  if given(run.sweep) then poke(run.sweep, run.nonce) end
elseif run.state == 'pending' or run.state == 'preempted' then
  local before = run.state
  redis.call('LREM', sweep_key(run.sweep, 'queue'), 0, args.run_id)
  redis.call('LREM', sweep_key(run.sweep, 'ready'), 0, args.run_id)
  redis.call('HSET', KEYS[1], 'reason', args.reason, 'ended', int(now))
  set_run_state(args.run_id, run, 'killed')
  event(run.sweep, 'killed', args.run_id, run, before, 'killed', { reason = args.reason })
  settle_sweep(run.sweep)
end
return reply({ outcome = 'ok', state = run.state })
