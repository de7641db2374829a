-- A sweep exists once it is created; creating it again with the same nonce changes nothing.
-- KEYS[1] sweep hash · args: sid, nonce, fields (name → value)
-- returns {outcome: 'created' | 'exists' (same nonce) | 'taken' (somebody else's)}
-- from → to: nothing → pending
-- include: base
local key = KEYS[1]
if redis.call('EXISTS', key) == 1 then
  return reply({ outcome = redis.call('HGET', key, 'nonce') == args.nonce and 'exists' or 'taken' })
end
for name, value in pairs(args.fields) do redis.call('HSET', key, name, value) end
redis.call('HSET', key, 'nonce', args.nonce, 'state', 'pending', 'reason', '', 'closed', '', 'next_index', '0', 'created', int(now))
event(args.sid, 'created', nil, nil, '', 'pending', nil)
return reply({ outcome = 'created' })
