-- The end of a run outside any sweep, as its script says it. Inside a sweep the agent says it (end_attempt). An unsure end,
-- which an older script of the run may have sent, holds until the right one says another, or logs (log).
-- KEYS[1] run hash · args: run_id, attempt, nonce, exit_code, unsure | absent
-- returns {hold, state, reason}
-- from → to: running, preempting → finished, failed · finished, failed → failed, finished (after an unsure end)
-- include: base, runs
local run = load_run(args.run_id)
local hold = hold_of(run, args.attempt, args.nonce)
local known = redis.call('HMGET', KEYS[1], 'unsure', 'ended')
local corrects = hold == 'ended' and known[1] == '1' and not given(args.unsure)
if (hold == 'owner' or corrects) and not given(run.sweep) then
  set_run_state(args.run_id, run, args.exit_code == 0 and 'finished' or 'failed')
  redis.call('HSET', KEYS[1], 'ended', int(now), 'exit_code', int(args.exit_code))
  redis.call('HINCRBY', KEYS[1], 'busy_ms', int(math.max(0, now - tonumber(corrects and known[2] or run.claimed))))
  if given(args.unsure) then redis.call('HSET', KEYS[1], 'unsure', '1') else redis.call('HDEL', KEYS[1], 'unsure') end
end
return reply({ hold = hold, state = run and run.state, reason = '' })
