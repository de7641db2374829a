-- Events become deliveries of webhooks, each once, and the cursor moves behind them in the same step: no event is left out
-- when a service dies or another one starts.
-- KEYS[1] sweep hash · args: sid, before (cursor as read), after (new cursor), deliveries [id]
-- returns {outcome: 'ok' (now or before) | 'late' (somebody else was faster) | 'unknown'}
-- from → to: none
-- include: base
if redis.call('EXISTS', KEYS[1]) == 0 then return reply({ outcome = 'unknown' }) end
local key = sweep_key(args.sid, 'hooks')
local cursor = redis.call('HGET', key, 'cursor') or ''
if cursor == args.after then return reply({ outcome = 'ok' }) end
if cursor ~= args.before then return reply({ outcome = 'late' }) end
for _, id in ipairs(args.deliveries or {}) do redis.call('HSET', key, id, int(now) .. ' 0') end
redis.call('HSET', key, 'cursor', args.after)
return reply({ outcome = 'ok' })
