-- What a person asks of a sweep; asking twice changes nothing.
-- KEYS[1] sweep hash · args: sid, command: 'pause' | 'resume' | 'stop' | 'cancel'
-- returns {outcome: 'ok' | 'unknown' | 'refused', state}
-- from → to: pause: running, pending → paused · resume: any → running · stop: pending, running, paused → finished ·
--            cancel: pending, running, paused, finished → canceled (its running runs are told to end)
-- include: base, sweeps
local sweep = redis.call('HMGET', KEYS[1], 'state', 'closed', 'reason')
local state, closed = sweep[1], sweep[2] or ''
if not state then return reply({ outcome = 'unknown' }) end
local over = state == 'finished' or state == 'canceled'

if args.command == 'pause' then
  if over then return reply({ outcome = 'refused', state = state }) end
  set_sweep_state(args.sid, state, 'paused')
elseif args.command == 'resume' then
  if closed == 'stopped' then close_search(args.sid, '') end
  if closed == 'target' then
    -- Whoever resumes a sweep that reached its target wants it to go on beyond it.
    redis.call('HSET', KEYS[1], 'closed', '', 'metric_target', '')
  end
  set_sweep_state(args.sid, state, 'running')
  settle_sweep(args.sid)
elseif args.command == 'stop' then
  if over and sweep[3] ~= 'stopped' then return reply({ outcome = 'refused', state = state }) end
  if closed == '' then close_search(args.sid, 'stopped') end
  set_sweep_state(args.sid, state, 'finished', 'stopped')
elseif args.command == 'cancel' then
  -- A stopped sweep may still have running runs: canceling it ends those too.
  set_sweep_state(args.sid, state, 'canceled', 'canceled')
  for _, rid in ipairs(redis.call('ZRANGE', sweep_key(args.sid, 'leases'), 0, -1)) do
    redis.call('HSETNX', run_key(rid), 'stop', 'canceled')
    poke(args.sid, redis.call('HGET', run_key(rid), 'nonce'))
  end
end
return reply({ outcome = 'ok', state = redis.call('HGET', KEYS[1], 'state') })
