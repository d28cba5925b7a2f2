-- One prepared request after the other, each sent once, and a look at every answer.
--
-- wrk drops what is under way when its time is up. So that tokens can be counted on both sides, the connections
-- ask for a harmless page when the time or the requests are spent, until the last token has been answered.

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } bench_time;
  int clock_gettime(int clock, bench_time *time);
]]
local CLOCK_MONOTONIC = 1
local reading = ffi.new("bench_time")

local requests, token_field, duration, spare = {}, nil, nil, nil
local sent, answered, in_time, tokens, refusal = 0, 0, 0, 0, ""
local began, ended
local is_checked = false

local function now()
  ffi.C.clock_gettime(CLOCK_MONOTONIC, reading)
  return tonumber(reading.seconds) + tonumber(reading.nanoseconds) / 1e9
end

function init(args)
  token_field, duration, spare = args[2], tonumber(args[3]), wrk.format("GET", args[4])
  local file = assert(io.open(args[1], "rb"))
  for length in function() return file:read("*l") end do
    requests[#requests + 1] = file:read(tonumber(length))
  end
  file:close()
end

function request()
  if not is_checked then -- wrk asks once for a request that it only looks at
    is_checked = true
    return requests[1]
  end
  began = began or now()
  if not ended and (sent == #requests or now() - began >= duration) then
    ended = now()
  end
  if ended then
    return spare
  end
  sent = sent + 1
  return requests[sent]
end

function response(status, _, body)
  if status == 200 and body:find(token_field, 1, true) then
    tokens, answered = tokens + 1, answered + 1
    in_time = in_time + (ended and 0 or 1)
  elseif not (ended and status == 200) then
    answered = answered + 1
    refusal = refusal == "" and status .. " " .. body or refusal
  end
  if ended and answered == sent then
    print("bench:", ended - began, in_time, tokens, answered - tokens, refusal)
    os.exit(0) -- wrk itself would wait for the end of its time
  end
end
