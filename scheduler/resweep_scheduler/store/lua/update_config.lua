-- Config keys, name, notes and tags that a script sets while it runs.
-- KEYS[1] run hash · args: run_id, attempt, nonce, config {key → JSON}, meta {name, group, notes, tags}
-- returns {hold, stop}
-- from → to: none
-- include: base, runs
local run = load_run(args.run_id)
local hold = hold_of_writer(run, args.attempt, args.nonce)
if hold == 'owner' or hold == 'ended' then
  for name, value in pairs(args.config) do redis.call('HSET', run_key(args.run_id, 'config'), name, value) end
  for name, value in pairs(args.meta) do redis.call('HSET', run_key(args.run_id, 'meta'), name, value) end
end
return reply({ hold = hold, stop = run and run.stop or '' })
