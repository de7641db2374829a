-- The newest checkpoint was found damaged or missing: an older one that is kept becomes the one to go on from, or, where
-- none can be used, it is only told. Only the owner can say so, and once for each checkpoint.
-- KEYS[1] run hash · args: run_id, attempt, nonce, lost (path of the newest one), path (to go on from) | absent,
--   metadata (JSON, of that one), reason
-- returns {hold, stop}
-- from → to: none
-- include: base, runs, checkpoints
local run = load_run(args.run_id)
local hold = hold_of_writer(run, args.attempt, args.nonce)
if hold ~= 'owner' then return reply({ hold = hold, stop = run and run.stop or '' }) end
confirm(args.run_id, run)
local known = load_checkpoint(args.run_id)

local function older_ones()
  local record, kept = nil, {}
  for _, older in ipairs(known.kept or {}) do
    if older.path == args.path then
      record = older
    elseif record then
      kept[#kept + 1] = older
    end
  end
  if record then record.metadata, record.kept = args.metadata, #kept > 0 and kept or nil end
  return record
end

if known.path == args.lost and known.told ~= args.attempt then
  local record = older_ones()
  if not record then known.told = args.attempt end
  save_checkpoint(args.run_id, record or known)
  event(run.sweep, 'fallback', args.run_id, run, run.state, run.state,
    { lost = known.step, step = record and record.step, reason = args.reason })
end
return reply({ hold = hold, stop = run.stop })
