-- An agent got word that its machine goes, or may go; the events say so once, and nothing else changes.
-- KEYS[1] sweep hash · args: sid, agent, session, number (of the notices of this session, from 1), source, detail,
--   hint (nothing follows from it), lead_ms (until the machine goes) | absent
-- returns {outcome: 'ok' | 'late' (the agent has left, or a newer process has its name)}
-- from → to: none
-- include: base, runs
local record = load_agent(args.sid, args.agent)
if not record or record.session ~= args.session then return reply({ outcome = 'late' }) end
if args.number > (record.notices or 0) then
  record.notices = args.number
  save_agent(args.sid, args.agent, record)
  event(args.sid, 'notice', '', { agent = args.agent }, '', '',
    { source = args.source, detail = args.detail, hint = args.hint, lead_ms = args.lead_ms })
end
return reply({ outcome = 'ok' })
