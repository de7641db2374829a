-- Of all clients that began the same run, the one that began last may write; earlier ones are known by their number from
-- then on. A repeated call (same init) gives the same number.
-- KEYS[1] run hash · args: run_id, attempt, nonce, init (made for this beginning)
-- returns {hold, writer (number), seq (last row that the attempt had before)}
-- from → to: none
-- include: base, runs
local run = load_run(args.run_id)
local hold = hold_of(run, args.attempt, args.nonce)
if hold ~= 'owner' and hold ~= 'ended' then return reply({ hold = hold }) end
local known = redis.call('HMGET', KEYS[1], 'writer', 'writer_init', 'writer_seq')
local writer, seq = tonumber(known[1] or 0), tonumber(known[3] or 0)
if known[2] ~= args.init then
  writer, seq = writer + 1, tonumber(run.seq) or 0
  redis.call('HSET', KEYS[1], 'writer', int(writer), 'writer_init', args.init, 'writer_nonce', args.nonce, 'writer_seq', int(seq))
  redis.call('HDEL', KEYS[1], 'asked', 'said')
end
return reply({ hold = hold, writer = writer, seq = seq })
