-- Takes suggestions into a sweep. Idempotent by index: what lies before next_index is known already, what does not start
-- at next_index is not used. Returns nil, or the id that belongs to another run.
local function add_offer(sid, offer)
  local key = sweep_key(sid)
  local state = redis.call('HMGET', key, 'next_index', 'run_cap', 'closed')
  local next_index, run_cap, closed = tonumber(state[1] or 0), tonumber(state[2] or 0), state[3]
  if given(closed) or offer.first_index ~= next_index then
    end_asking(sid, offer.asker)
    return nil
  end
  for _, new in ipairs(offer.runs) do
    if run_cap > 0 and next_index >= run_cap then break end
    if redis.call('EXISTS', run_key(new.id)) == 1 then return new.id end
    redis.call('HSET', run_key(new.id), 'sweep', sid, 'index', int(next_index), 'state', 'pending', 'attempt', '0', 'created', int(now))
    redis.call('HSET', sweep_key(sid, 'params'), new.id, new.params)
    redis.call('ZADD', sweep_key(sid, 'runs'), int(next_index), new.id)
    redis.call('RPUSH', sweep_key(sid, 'ready'), new.id)
    redis.call('HINCRBY', key, 'n:pending', 1)
    next_index = next_index + 1
    redis.call('HSET', key, 'next_index', int(next_index))
    event(sid, 'suggested', new.id, nil, '', 'pending', { index = next_index - 1 })
  end
  if run_cap > 0 and next_index >= run_cap then
    close_search(sid, 'run_cap')
  elseif offer.exhausted then
    close_search(sid, 'exhausted')
  end
  end_asking(sid, offer.asker)
  wake_askers(sid)
  return nil
end
