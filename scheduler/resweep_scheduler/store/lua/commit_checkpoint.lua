-- The checkpoint from which the next attempt goes on: only the owner can set it.
-- A call that is repeated, or that arrives after one which the same attempt made after more rows, changes nothing: what it
-- names may be deleted already.
-- KEYS[1] run hash · args: run_id, attempt, nonce, checkpoint {path, step, metadata: JSON, after (row)}
-- returns {hold, stop}
-- from → to: none
-- include: base, runs
local run = load_run(args.run_id)
local hold = hold_of_writer(run, args.attempt, args.nonce)
if hold == 'owner' then
  confirm(args.run_id, run)
  local record = args.checkpoint
  record.attempt, record.saved_at = args.attempt, now
  local text = redis.call('GET', run_key(args.run_id, 'checkpoint'))
  local known = text and cjson.decode(text) or {}
  local same_attempt = known.attempt == record.attempt
  local repeated = same_attempt and known.path == record.path and known.step == record.step
    and known.metadata == record.metadata
  local late = same_attempt and record.after < (known.after or 0)
  if not repeated and not late then
    redis.call('SET', run_key(args.run_id, 'checkpoint'), cjson.encode(record))
    event(run.sweep, 'checkpoint', args.run_id, run, run.state, run.state, { step = record.step })
  end
end
return reply({ hold = hold, stop = run and run.stop or '' })
