-- The tail of what a run printed, for reading from anywhere.
-- KEYS[1] run hash · args: run_id, attempt, nonce, text, keep (chunks)
-- returns {hold, stop}
-- from → to: none
-- include: base, runs
local run = load_run(args.run_id)
local hold = hold_of(run, args.attempt, args.nonce)
if hold == 'owner' or hold == 'ended' or hold == 'lapsed' then
  redis.call('XADD', run_key(args.run_id, 'output'), 'MAXLEN', int(args.keep), '*', 'attempt', int(args.attempt), 'text', args.text)
end
return reply({ hold = hold, stop = run and run.stop or '' })
