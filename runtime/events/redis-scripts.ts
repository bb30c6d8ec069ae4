import type { RedisClient } from "#runtime/redis.ts";

// Each script is one atomic step; where it says LOST, Redis does not hold what the caller put there. `redis-bus.ts` describes the protocol.

/** How far the slowest of the consumers from ARGV[3] on has passed the stream KEYS[1]; nil when a group is missing. Trims what all passed. */
const SLOWEST = `
local function parts(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(seq)
end
local function slowest()
  local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
  if groups.err then return nil end
  local states = {}
  for _, flat in ipairs(groups) do
    local state = {}
    for i = 1, #flat, 2 do state[flat[i]] = flat[i + 1] end
    states[state['name']] = state
  end
  local low, lowSeq
  for i = 3, #ARGV do
    local state = states[ARGV[i]]
    if not state then return nil end
    local ms, seq = parts(state['last-delivered-id'])
    if state['pending'] > 0 then
      ms, seq = parts(redis.call('XPENDING', KEYS[1], ARGV[i])[2])
      if seq > 0 then seq = seq - 1 else ms = ms - 1; seq = 4294967295 end
    end
    if not low or ms < low or (ms == low and seq < lowSeq) then low = ms; lowSeq = seq end
  end
  if not low then return '0-0' end
  local id = string.format('%.0f-%.0f', math.max(low, 0), lowSeq)
  redis.call('XTRIM', KEYS[1], 'MINID', id)
  return id
end`;

/** KEYS stream, writers; ARGV source, token, consumers… Makes stream and groups where they are missing, and this writer the only one of its source. */
const ATTACH = `${SLOWEST}
for i = 3, #ARGV do
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[i], '0', 'MKSTREAM')
  if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
slowest()
return 'OK'`;

/** KEYS stream, writers; ARGV source, token, next token, longest stream, channel, (type, event)… Appends, and gives the id of the last entry. */
const PUBLISH = `
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 'LOST' end
if redis.call('EXISTS', KEYS[1]) == 0 then return 'LOST' end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[4]) then return 'FULL' end
local id
for i = 6, #ARGV, 2 do
  id = redis.call('XADD', KEYS[1], '*', 't', ARGV[i], 'e', ARGV[i + 1])
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('PUBLISH', ARGV[5], 'new')
return id`;

/** KEYS stream, writers; ARGV source, token, consumers… Gives the id of the last entry that every consumer passed. */
const PASSED = `${SLOWEST}
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 'LOST' end
return slowest() or 'LOST'`;

/**
 * KEYS members, leases…; ARGV owner, lease in ms, whether to give back what is more than a fair share, channel. Renews, takes what is free, gives the indexes held.
 */
const BALANCE = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 10)
local all = #KEYS - 1
local share = math.ceil(all / redis.call('ZCARD', KEYS[1]))
local mine, free = {}, {}
for i = 1, all do
  local owner = redis.call('GET', KEYS[i + 1])
  if owner == ARGV[1] then mine[#mine + 1] = i elseif not owner then free[#free + 1] = i end
end
if ARGV[3] == '1' and #mine > share then
  while #mine > share do redis.call('DEL', KEYS[table.remove(mine) + 1]) end
  redis.call('PUBLISH', ARGV[4], 'free')
end
while #mine < share and #free > 0 do mine[#mine + 1] = table.remove(free, 1) end
for _, i in ipairs(mine) do redis.call('SET', KEYS[i + 1], ARGV[1], 'PX', ARGV[2]) end
return mine`;

/** KEYS members, leases…; ARGV owner, channel. Gives all back. */
const LEAVE = `
redis.call('ZREM', KEYS[1], ARGV[1])
for i = 2, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[1] then redis.call('DEL', KEYS[i]) end
end
redis.call('PUBLISH', ARGV[2], 'free')
return 'OK'`;

/**
 * KEYS streams…, leases…; ARGV consumer, owner, most entries of each stream. What was handed out and not acknowledged comes first, whoever held it.
 * Gives (index, entries)… of the streams whose lease the owner holds: nobody else can be given anything of them.
 */
const TAKE = `
local out = {}
local n = #KEYS / 2
for i = 1, n do
  if redis.call('GET', KEYS[n + i]) == ARGV[2] then
    local claimed = redis.pcall('XAUTOCLAIM', KEYS[i], ARGV[1], ARGV[2], 0, '0-0', 'COUNT', ARGV[3])
    if not claimed.err then
      local entries = claimed[2]
      if #entries == 0 then
        local got = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', ARGV[3], 'STREAMS', KEYS[i], '>')
        if got then entries = got[1][2] end
      end
      if #entries > 0 then out[#out + 1] = i; out[#out + 1] = entries end
    end
  end
end
return out`;

type Reply = string | number | Buffer | Reply[] | null;
type Run = (keyCount: number, ...args: (string | number | Buffer)[]) => Promise<Reply>;

/** The scripts as commands of one connection; each call sends at once, so calls keep their order. */
export interface Scripts {
  readonly attach: Run;
  readonly publish: Run;
  readonly passed: Run;
  readonly balance: Run;
  readonly leave: Run;
  /** Answers in bytes. */
  readonly take: Run;
}

/** Makes the scripts known to a connection. A server that forgot them gets them again. */
export function scriptsOf(client: RedisClient): Scripts {
  const define = (name: string, lua: string, suffix = ""): Run => {
    client.defineCommand(name, { lua });
    const commands = client as unknown as Record<string, Run>;
    return async (...args) => (commands[`${name}${suffix}`] as Run).apply(client, args);
  };
  return {
    attach: define("soukAttach", ATTACH),
    publish: define("soukPublish", PUBLISH),
    passed: define("soukPassed", PASSED),
    balance: define("soukBalance", BALANCE),
    leave: define("soukLeave", LEAVE),
    take: define("soukTake", TAKE, "Buffer"),
  };
}
