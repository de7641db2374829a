-- Suggestions of the search become runs that wait for an agent, each index once, in order.
-- KEYS[1] sweep hash · args: sid, offer {first_index, runs: [{id, params}], exhausted, asker | absent}
-- returns {outcome: 'ok' | 'unknown' | 'taken', next_index, run_id (taken)}
-- from → to: nothing → pending
-- include: base, sweeps, runs, asking, adding
if redis.call('EXISTS', KEYS[1]) == 0 then return reply({ outcome = 'unknown' }) end
local taken = add_offer(args.sid, args.offer)
settle_sweep(args.sid)
-- Who asked on behalf of all that wait has woken them.
if not taken and not given(args.offer.asker) then wake(args.sid, #args.offer.runs) end
return reply({ outcome = taken and 'taken' or 'ok', run_id = taken,
  next_index = tonumber(redis.call('HGET', KEYS[1], 'next_index')) })
