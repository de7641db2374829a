-- The tail of what a run printed, for reading from anywhere. A piece that is sent again (same number) is not stored again.
-- KEYS[1] run hash · args: run_id, attempt, nonce, piece (number within the attempt), text, keep (chunks)
-- returns {hold, stop}
-- from → to: none
-- include: base, runs
local run = load_run(args.run_id)
local hold = hold_of(run, args.attempt, args.nonce)
local key = run_key(args.run_id, 'output')

local function is_stored()
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  local fields = last and last[2]
  return fields and fields[2] == int(args.attempt) and fields[4] == int(args.piece)
end

if (hold == 'owner' or hold == 'ended' or hold == 'lapsed') and not is_stored() then
  redis.call('XADD', key, 'MAXLEN', int(args.keep), '*',
    'attempt', int(args.attempt), 'piece', int(args.piece), 'text', args.text)
end
return reply({ hold = hold, stop = run and run.stop or '' })
