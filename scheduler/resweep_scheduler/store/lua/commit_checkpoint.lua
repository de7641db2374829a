-- The checkpoint from which the next attempt goes on, and the ones before it that are kept: only the owner can set it.
-- A call that is repeated, or that arrives after one which the same attempt made after more rows, changes nothing: what it
-- names may be deleted already.
-- KEYS[1] run hash · args: run_id, attempt, nonce, checkpoint {path, step, metadata: JSON, after (row)}, keep (how many)
-- returns {hold, stop, kept: [paths, newest first] (of the owner)}
-- from → to: none
-- include: base, runs, checkpoints
local run = load_run(args.run_id)
local hold = hold_of_writer(run, args.attempt, args.nonce)
if hold ~= 'owner' then return reply({ hold = hold, stop = run and run.stop or '' }) end
confirm(args.run_id, run)
local record = args.checkpoint
record.attempt, record.saved_at = args.attempt, now
local known = load_checkpoint(args.run_id)
local same_attempt = known.attempt == record.attempt
local repeated = same_attempt and known.path == record.path and known.step == record.step
  and known.metadata == record.metadata
local late = same_attempt and record.after < (known.after or 0)
if not repeated and not late then
  local kept = known.path and { as_kept(known) } or {}
  for _, older in ipairs(known.kept or {}) do kept[#kept + 1] = older end
  while #kept >= args.keep do table.remove(kept) end
  record.kept = #kept > 0 and kept or nil
  save_checkpoint(args.run_id, record)
  event(run.sweep, 'checkpoint', args.run_id, run, run.state, run.state, { step = record.step })
  known = record
end
local paths = { known.path }
for _, older in ipairs(known.kept or {}) do paths[#paths + 1] = older.path end
return reply({ hold = hold, stop = run.stop, kept = paths })
