-- The checkpoint from which the next attempt goes on: only the owner can set it.
-- Committing the same again (a repeated call) changes nothing but the time.
-- KEYS[1] run hash · args: run_id, attempt, nonce, checkpoint {path, step, metadata: JSON}
-- returns {hold, stop}
-- from → to: none
-- include: base, runs
local run = load_run(args.run_id)
local hold = hold_of(run, args.attempt, args.nonce)
if hold == 'owner' then
  local record = args.checkpoint
  record.attempt, record.saved_at = args.attempt, now
  local text = redis.call('GET', run_key(args.run_id, 'checkpoint'))
  local known = text and cjson.decode(text) or {}
  redis.call('SET', run_key(args.run_id, 'checkpoint'), cjson.encode(record))
  if known.attempt ~= record.attempt or known.path ~= record.path or known.step ~= record.step then
    event(run.sweep, 'checkpoint', args.run_id, run, run.state, run.state, { step = record.step })
  end
end
return reply({ hold = hold, stop = run and run.stop or '' })
