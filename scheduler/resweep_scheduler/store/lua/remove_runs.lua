-- Forgets runs and all that belongs to them. Runs that an attempt owns are left alone.
-- KEYS[1] any key of the project · args: run_ids, project_runs (key), only_over (a sweep; unless it is over, nothing is done)
-- returns {removed, refused}
-- from → to: any state without an owner → nothing
-- include: base, sweeps, runs, stopping
if given(args.only_over) then
  local state = redis.call('HGET', sweep_key(args.only_over), 'state')
  if state ~= 'finished' and state ~= 'canceled' then return reply({ removed = 0, refused = true }) end
end
local removed = 0
for _, rid in ipairs(args.run_ids) do
  local run = load_run(rid)
  if run and not (given(run.sweep) and OWNED[run.state]) then
    if given(run.sweep) then
      for _, part in ipairs({ 'runs', 'leases' }) do redis.call('ZREM', sweep_key(run.sweep, part), rid) end
      for _, part in ipairs({ 'queue', 'ready' }) do redis.call('LREM', sweep_key(run.sweep, part), 0, rid) end
      redis.call('HDEL', sweep_key(run.sweep, 'params'), rid)
      forget_curve(run.sweep, rid)
      redis.call('HINCRBY', sweep_key(run.sweep), 'n:' .. run.state, -1)
      event(run.sweep, 'removed', rid, run, run.state, '', nil)
    end
    redis.call('ZREM', args.project_runs, rid)
    redis.call('DEL', run_key(rid), run_key(rid, 'history'), run_key(rid, 'summary'), run_key(rid, 'config'),
      run_key(rid, 'meta'), run_key(rid, 'checkpoint'), run_key(rid, 'output'),
      run_key(rid, 'files'))
    if given(run.sweep) then settle_sweep(run.sweep) end
    removed = removed + 1
  end
end
return reply({ removed = removed })
