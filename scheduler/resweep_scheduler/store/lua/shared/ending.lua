-- How an attempt ends: with a status, without one, stopped, or because its lease ran out.

local function progressed(run)
  local step, before = tonumber(run.step), tonumber(run.claim_step)
  return step ~= nil and (before == nil or step > before)
end

-- The state a run goes to when its attempt ends, and the reason where the rule is not plain from the exit status.
-- ending: exit_code | nil, preempted (the agent had a notice), killed (the agent stopped it), lost (nobody reported the end)
local function state_after(run, ending)
  if ending.killed then return 'killed', given(run.stop) and run.stop or ending.reason end
  if ending.exit_code == 0 then return 'finished' end
  if given(run.stop) then return 'killed', run.stop end
  if run.state == 'preempting' or run.was_preempting == '1' or ending.preempted then return 'preempted' end
  if ending.lost and run.confirmed ~= '1' then return 'preempted', 'the attempt never began' end
  if ending.lost and run.preemptible == '1' then return 'preempted', ending.reason end
  if ending.exit_code then return 'failed' end
  return 'crashed'
end

-- Attempts without a new step that their machines ended (there was a notice, or nobody reported an end) are allowed so many
-- times the limit: bad luck, as long as something was logged, but not for ever.
local MACHINES_MAY = 10

-- Preempted again and again without a new step: the fault is the script's, not the machine's.
local function count_fruitless(rid, run, ending, limit)
  if run.confirmed ~= '1' then return 0 end
  if progressed(run) then
    redis.call('HDEL', run_key(rid), 'fruitless', 'unlucky')
    return 0
  end
  local name, allowed = 'fruitless', limit
  if (ending.lost or ending.preempted) and (tonumber(run.seq) or 0) > 0 then
    name, allowed = 'unlucky', limit * MACHINES_MAY
  end
  local count = redis.call('HINCRBY', run_key(rid), name, 1)
  return limit > 0 and count >= allowed and count or 0
end

local function retry_allowed(rid, run, state)
  if not given(run.sweep) or (state ~= 'failed' and state ~= 'crashed') then return false end
  local allowed = tonumber(redis.call('HGET', sweep_key(run.sweep), 'retry_' .. state) or 0)
  if allowed <= (tonumber(redis.call('HGET', run_key(rid), 'retries_' .. state) or 0)) then return false end
  redis.call('HINCRBY', run_key(rid), 'retries_' .. state, 1)
  return true
end

local function enqueue(sid, rid, first)
  redis.call(first and 'LPUSH' or 'RPUSH', sweep_key(sid, 'queue'), rid)
  reopen_sweep(sid)
  wake(sid, 1)
end

-- Ends the attempt that owns the run (or that owned it until its lease ran out). Returns the state after and the reason.
local function finish_attempt(rid, run, ending)
  local sid, before = run.sweep, run.state
  if ending.lost then remember_counts(rid) end
  local after, reason = state_after(run, ending)
  reason = reason or ending.reason or ''
  local failure = after
  if after == 'preempted' then
    local limit = tonumber(redis.call('HGET', sweep_key(sid), 'max_fruitless') or 0)
    local fruitless = count_fruitless(rid, run, ending, limit)
    if fruitless > 0 then
      after = 'failed'
      reason = 'preempted ' .. int(fruitless) .. ' times in a row without a new step (preemption.max_attempts_without_progress)'
    end
  elseif retry_allowed(rid, run, after) then
    after = 'preempted'
    reason = failure .. ', retried by the sweep\'s retry policy'
  end
  local key = run_key(rid)
  redis.call('ZREM', sweep_key(sid, 'leases'), rid)
  redis.call('HSET', key, 'reason', reason, 'ended', int(now), 'exit_code', ending.exit_code and int(ending.exit_code) or '',
    'signal', ending.signal and int(ending.signal) or '')
  redis.call('HINCRBY', key, 'busy_ms', int(math.max(0, now - (tonumber(run.claimed) or now))))
  if ending.lost then
    redis.call('HSET', key, 'lapsed', '1', 'was_preempting', before == 'preempting' and '1' or '')
  else
    redis.call('HDEL', key, 'lapsed', 'was_preempting', 'stop', 'claim_step', 'confirmed', 'preemptible')
  end
  -- What ended otherwise before the stop could reach it was not stopped.
  if after ~= 'killed' then redis.call('HDEL', key, 'pruned') end
  set_run_state(rid, run, after)
  local rule = after == 'finished' and stopping_rule(sid)
  if rule then enter_levels_of_finished(sid, rid, rule) end
  if before == 'preempted' and after ~= 'preempted' then redis.call('LREM', sweep_key(sid, 'queue'), 0, rid) end
  local data = { reason = reason }
  if ending.exit_code then data.exit_code = ending.exit_code end
  if ending.signal then data.signal = ending.signal end
  if failure ~= after then data.outcome = failure end
  event(sid, after, rid, run, before, after, data)
  if after == 'preempted' and before ~= 'preempted' then enqueue(sid, rid, ending.lost and run.confirmed ~= '1') end
  free_agent(sid, run.agent, rid)
  -- Who reports an end needs no call; who was given up for dead, and may live, does.
  if ending.lost then poke(sid, run.nonce) end
  settle_sweep(sid)
  return after, reason
end

-- Ends attempts whose leases ran out, oldest first, a few at a time so that no caller waits long.
local function reap(sid, clock)
  local due = redis.call('ZRANGEBYSCORE', sweep_key(sid, 'leases'), '-inf', int(clock), 'LIMIT', 0, 16)
  for _, rid in ipairs(due) do
    local run = load_run(rid)
    if run and OWNED[run.state] then
      -- A client of W&B's that nobody vouches for has said that the script is through, and nobody was heard since.
      local is_through = redis.call('HGET', run_key(rid), 'said') == '0'
      local ending = is_through and { exit_code = 0, reason = 'as its script said' } or { lost = true, reason = 'the lease ran out' }
      finish_attempt(rid, run, ending)
    else
      redis.call('ZREM', sweep_key(sid, 'leases'), rid)
    end
  end
end

-- The owner says how its attempt ended. An owner whose lease ran out while nobody took the run may still say it.
-- report: run_id, attempt, nonce, exit_code | absent (no status), signal | absent, reason, preempted, killed,
--   launched (absent: true)
-- returns {hold: owner (recorded now) | ended (recorded before) | stale | gone, state, reason}
local function report_end(report)
  local run = load_run(report.run_id)
  local hold = hold_of(run, report.attempt, report.nonce)
  if hold == 'lapsed' then
    restore_counts(report.run_id)
    run, hold = load_run(report.run_id), 'owner'
  end
  if hold ~= 'owner' then
    return { hold = hold, state = run and run.state, reason = run and run.reason }
  end
  -- Whoever can say how a child ended has launched it, even if no heartbeat came through. An attempt that never began
  -- says nothing about the script.
  if report.launched ~= false then run.confirmed = '1' end
  local state, reason = finish_attempt(report.run_id, run, {
    exit_code = report.exit_code, signal = report.signal, reason = report.reason, preempted = report.preempted, killed = report.killed,
  })
  return { hold = 'owner', state = state, reason = reason }
end
