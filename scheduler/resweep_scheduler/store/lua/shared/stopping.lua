-- Early termination. The curve of a run is the list of the values of the sweep's metric that it logged, in the order of
-- their steps; the iteration of a value is its place in that list, from 1. At some iterations, the levels, runs are
-- compared: a level is a sorted set of the values that runs had there, times rule.sign, so that less is better.
-- rule (JSON in the sweep's field `stopping`), besides type and sign (-1 for maximize):
--   hyperband: bands (ascending), eta, strict · median, percentile: percentile, n_startup_runs, min_iter, interval

-- A run that finishes enters its levels at once: so many that Redis is not held up.
local MOST_LEVELS = 10000
local CURVE_PAGE = 1000

local function stopping_rule(sid)
  local text = given(sid) and redis.call('HGET', sweep_key(sid), 'stopping')
  return given(text) and cjson.decode(text) or nil
end

local function level_key(sid, iteration) return sweep_key(sid, 'level:' .. int(iteration)) end

-- The levels among the iterations first to last.
local function levels_in(rule, first, last)
  local found = {}
  if rule.bands then
    for _, band in ipairs(rule.bands) do
      if band >= first and band <= last then found[#found + 1] = band end
    end
  elseif rule.interval then
    local index = math.max(0, math.ceil((first - rule.min_iter) / rule.interval))
    local level = rule.min_iter + index * rule.interval
    while level <= last and index < MOST_LEVELS do
      found[#found + 1] = level
      index, level = index + 1, level + rule.interval
    end
  end
  return found
end

-- A point of the curve is the text 'step attempt value best'; best is that of the values up to there.
local function point_at(rid, index)
  local text = redis.call('LINDEX', run_key(rid, 'curve'), int(index))
  if not text then return nil end
  local step, attempt, value, best = string.match(text, '^(%S+) (%S+) (%S+) (%S+)$')
  return { step = tonumber(step), attempt = tonumber(attempt), value = value, best = best }
end

local function enter_level(sid, rid, rule, level, value)
  redis.call('ZADD', level_key(sid, level), string.format('%.17g', rule.sign * tonumber(value)), rid)
end

-- The runs at a level: all that came so far (hyperband), or those that finished (the others).
local function is_compared(rule, run) return rule.bands ~= nil or run.state == 'finished' end

-- Whoever is finished is what others are measured by.
local function enter_levels_of_finished(sid, rid, rule)
  if not rule.interval then return end
  local length = redis.call('LLEN', run_key(rid, 'curve'))
  local levels, next_level = levels_in(rule, 1, length), 1
  for start = 0, length - 1, CURVE_PAGE do
    local page
    while levels[next_level] and levels[next_level] <= start + CURVE_PAGE do
      page = page or redis.call('LRANGE', run_key(rid, 'curve'), int(start), int(start + CURVE_PAGE - 1))
      local value = string.match(page[levels[next_level] - start], '^%S+ %S+ (%S+)')
      enter_level(sid, rid, rule, levels[next_level], value)
      next_level = next_level + 1
    end
  end
end

-- The run goes on from before `step`: what it had there and later is taken back, from its levels too.
local function cut_curve(sid, rid, rule, step)
  local key = run_key(rid, 'curve')
  local length = redis.call('LLEN', key)
  local kept, beyond = 0, length
  while kept < beyond do
    local middle = math.floor((kept + beyond) / 2)
    if point_at(rid, middle).step < step then kept = middle + 1 else beyond = middle end
  end
  for _, level in ipairs(levels_in(rule, kept + 1, length)) do redis.call('ZREM', level_key(sid, level), rid) end
  if kept == 0 then redis.call('DEL', key) else redis.call('LTRIM', key, 0, int(kept - 1)) end
end

-- A row was logged at a step; value: that of the metric as text, nil when the row has none. Steps that are logged again
-- replace what was there; but a row of the same attempt that only adds other names to its step leaves the value alone.
-- Returns the iteration and the best value, nil without a value.
local function draw_point(sid, rid, run, rule, step, value)
  local last = point_at(rid, -1)
  if last and step <= last.step and (value or step < last.step or run.attempt ~= last.attempt) then
    cut_curve(sid, rid, rule, step)
    last = point_at(rid, -1)
  end
  if not value then return nil end
  local improves = not last or rule.sign * tonumber(value) < rule.sign * tonumber(last.best)
  local best = improves and value or last.best
  local iteration = redis.call('RPUSH', run_key(rid, 'curve'), table.concat({ int(step), int(run.attempt), value, best }, ' '))
  if is_compared(rule, run) then
    for _, level in ipairs(levels_in(rule, iteration, iteration)) do enter_level(sid, rid, rule, level, value) end
  end
  return iteration, best
end

local function forget_curve(sid, rid)
  local rule = stopping_rule(sid)
  if rule then cut_curve(sid, rid, rule, -1) end
end

-- Hyperband as W&B has it: of the runs at a band the best int(runs / eta) + 1 survive, and all that are equal to the
-- last of them. Strict compares what a run had at the band, else it is its best so far.
local function hyperband_finding(sid, rid, rule, iteration, best)
  local passed = levels_in(rule, 1, iteration)
  local band = passed[#passed]
  if not band then return nil end
  local level = level_key(sid, band)
  local runs = redis.call('ZCARD', level)
  local rank = math.min(runs - 1, math.floor((1 / rule.eta) * runs))
  local threshold = tonumber(redis.call('ZRANGE', level, int(rank), int(rank), 'WITHSCORES')[2])
  local value = rule.strict and tonumber(redis.call('ZSCORE', level, rid)) or rule.sign * tonumber(best)
  return { band = band, value = value, threshold = threshold, runs = runs }
end

-- The best so far is compared with a percentile of what the finished runs had at this iteration.
local function percentile_finding(sid, rid, rule, iteration, best)
  if #levels_in(rule, iteration, iteration) == 0 then return nil end
  local level = level_key(sid, iteration)
  local runs = redis.call('ZCARD', level)
  if runs == 0 or (tonumber(redis.call('HGET', sweep_key(sid), 'n:finished')) or 0) < rule.n_startup_runs then return nil end
  local position = (runs - 1) * rule.percentile / 100
  local rank = math.floor(position)
  local scores = redis.call('ZRANGE', level, int(rank), int(rank + 1), 'WITHSCORES')
  local low, high = tonumber(scores[2]), tonumber(scores[4] or scores[2])
  local threshold = low + (high - low) * (position - rank)
  return { band = iteration, value = rule.sign * tonumber(best), threshold = threshold, runs = runs }
end

-- Tells the agent of a run to end it, and marks the run as one whose values count for the search.
local function stop_early(rid, run, data)
  run.stop = data.reason
  redis.call('HSET', run_key(rid), 'stop', run.stop, 'pruned', '1')
  event(run.sweep, 'stop', rid, run, run.state, run.state, data)
  poke(run.sweep, run.nonce)
end

-- Preempting runs go on, and so do those whose script is over, and those that a person retried after an early stop.
local function may_be_stopped(run)
  return run.state == 'running' and not given(run.stop) and run.over ~= '1' and run.spared ~= '1'
end

-- Stops the run if the rule finds it worse than the others at this iteration.
local function judge(rid, run, rule, iteration, best)
  if not may_be_stopped(run) then return end
  local find = rule.bands and hyperband_finding or rule.interval and percentile_finding
  local found = find and find(run.sweep, rid, rule, iteration, best)
  if not found or found.value <= found.threshold then return end
  local value, threshold = rule.sign * found.value, rule.sign * found.threshold
  stop_early(rid, run, {
    reason = string.format('early_terminate: %s, %.6g is worse than %.6g, the threshold of %d runs at iteration %d',
      rule.type, value, threshold, found.runs, found.band),
    rule = rule.type, iteration = iteration, band = found.band, value = value, threshold = threshold, runs = found.runs,
  })
end

-- The others may have raised the bar since the run logged its last value.
local function judge_again(rid, run)
  local rule = may_be_stopped(run) and stopping_rule(run.sweep)
  local last = rule and rule.bands and point_at(rid, -1)
  if last then judge(rid, run, rule, redis.call('LLEN', run_key(rid, 'curve')), last.best) end
end
