-- Renews the lease of the attempt that owns the run, reaps others whose leases ran out, and says what the agent must know.
-- The first heartbeat also says that the child is launched. Where runs are stopped early, the run is judged again.
-- KEYS[1] run hash · args: sid, agent, run_id, attempt, nonce, lease_ms, preemptible (the machine turned out
--   to be one that may be taken away) | absent
-- returns {hold, stop, preempting}
-- from → to: none for this run · others: running → crashed, preempted, killed · preempting → preempted, failed
-- include: base, clock, sweeps, runs, stopping, ending
local run = load_run(args.run_id)
local hold = hold_of(run, args.attempt, args.nonce)
local clock = lease_clock(args.sid)
if hold == 'owner' then
  redis.call('ZADD', sweep_key(args.sid, 'leases'), int(clock + args.lease_ms), args.run_id)
  confirm(args.run_id, run)
  if args.preemptible then redis.call('HSET', KEYS[1], 'preemptible', '1') end
  redis.call('ZADD', sweep_key(args.sid, 'seen'), int(now), args.agent)
  judge_again(args.run_id, run)
end
reap(args.sid, clock)
return reply({ hold = hold, stop = run and run.stop or '', preempting = run ~= nil and run.state == 'preempting' })
