-- The life of a sweep: waking agents, closing the search, finishing.

-- Tokens carry no run: an agent that dies with one has taken nothing away, and all others ask once a second anyhow.
local function wake(sid, tokens)
  local key = sweep_key(sid, 'wake')
  for _ = 1, math.min(tokens, 64) do redis.call('RPUSH', key, '1') end
  redis.call('LTRIM', key, -64, -1)
  redis.call('PEXPIRE', key, 60000)
end

local function wake_all(sid) wake(sid, redis.call('HLEN', sweep_key(sid, 'agents'))) end

-- Makes the agent process with this session send its heartbeats at once, and so learn what changed.
local function poke(sid, nonce)
  local session = string.match(nonce or '', '^([^.]+)%.')
  if not session then return end
  local key = sweep_key(sid, 'poke:' .. session)
  redis.call('RPUSH', key, '1')
  redis.call('LTRIM', key, -4, -1)
  redis.call('PEXPIRE', key, 60000)
end

local function set_sweep_state(sid, before, after, reason)
  if before == after then return end
  redis.call('HSET', sweep_key(sid), 'state', after, 'reason', reason or '')
  event(sid, 'state', nil, nil, before, after, given(reason) and { reason = reason } or nil)
  if after ~= 'paused' then wake_all(sid) end
end

-- The search has nothing more to give: 'exhausted', 'run_cap', 'target' or 'stopped'.
local function close_search(sid, reason)
  redis.call('HSET', sweep_key(sid), 'closed', reason)
end

-- A closed search whose suggested runs must not be started any more.
local function holds_back(closed) return closed == 'target' or closed == 'stopped' end

-- A sweep is finished when its search is closed and nothing is pending, queued or running.
-- Returns the state after the look.
local function settle_sweep(sid)
  local sweep = redis.call('HMGET', sweep_key(sid), 'state', 'closed', 'n:pending', 'n:running', 'n:preempting', 'n:preempted')
  local state, closed = sweep[1], sweep[2]
  if not given(closed) or (state ~= 'running' and state ~= 'pending') then return state end
  local alive = tonumber(sweep[4] or 0) + tonumber(sweep[5] or 0) + tonumber(sweep[6] or 0)
  if not holds_back(closed) then alive = alive + tonumber(sweep[3] or 0) end
  if alive > 0 then return state end
  set_sweep_state(sid, state, 'finished', closed)
  return 'finished'
end

-- A sweep that was finished for want of runs goes on when one of its runs comes back to life.
local function reopen_sweep(sid)
  local sweep = redis.call('HMGET', sweep_key(sid), 'state', 'reason')
  if sweep[1] == 'finished' and sweep[2] ~= 'stopped' then set_sweep_state(sid, 'finished', 'running') end
end
