-- Puts runs that failed, crashed or were killed back on the run queue; runs in other states are left alone.
-- KEYS[1] sweep hash · args: sid, run_ids
-- returns {outcome: 'ok' | 'unknown', retried: {run id → state before}}
-- from → to: failed, crashed, killed → preempted · sweep: finished, canceled → running
-- include: base, sweeps, runs, stopping, ending
if redis.call('EXISTS', KEYS[1]) == 0 then return reply({ outcome = 'unknown' }) end
local retried, any = {}, false
for _, rid in ipairs(args.run_ids) do
  local run = load_run(rid)
  if run and run.sweep == args.sid and (run.state == 'failed' or run.state == 'crashed' or run.state == 'killed') then
    local before = run.state
    redis.call('HSET', run_key(rid), 'reason', 'retried by hand')
    -- 'lapsed' stays: an owner that is alive after all may still adopt the run while nobody took it.
    -- Whoever retries a run that was stopped early wants it to go on.
    if redis.call('HDEL', run_key(rid), 'pruned') == 1 then redis.call('HSET', run_key(rid), 'spared', '1') end
    redis.call('HDEL', run_key(rid), 'stop', 'fruitless', 'unlucky', 'retries_failed', 'retries_crashed')
    set_run_state(rid, run, 'preempted')
    event(args.sid, 'retried', rid, run, before, 'preempted', nil)
    enqueue(args.sid, rid)
    retried[rid], any = before, true
  end
end
local state = redis.call('HGET', KEYS[1], 'state')
if any and (state == 'finished' or state == 'canceled') then
  -- The search stays as it was: whoever retries runs of a stopped sweep wants these and no new ones.
  if not given(redis.call('HGET', KEYS[1], 'closed')) then close_search(args.sid, 'stopped') end
  set_sweep_state(args.sid, state, 'running')
end
return reply({ outcome = 'ok', retried = any and retried or nil })
