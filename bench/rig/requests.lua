-- Sends the requests of a folder in rotation; prints one line of JSON at the end.
-- Arguments: the folder's index file. Its lines: method, path, file of the body, file of the headers, separated by tabs.
local requests, count, turn = {}, 0, 0

local function content(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

function init(args)
  for line in io.lines(args[1]) do
    local method, path, body, head = string.match(line, "^([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)$")
    local headers = {}
    for name, value in string.gmatch(content(head), "([^:\n]+): ([^\n]+)\n") do headers[name] = value end
    count = count + 1
    requests[count] = wrk.format(method, path, headers, content(body))
  end
end

function request()
  turn = turn % count + 1
  return requests[turn]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '\nJSON {"requests":%d,"seconds":%.6f,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,' ..
    '"p50":%.1f,"p90":%.1f,"p99":%.1f,"p999":%.1f,"max":%.1f}\n',
    summary.requests, summary.duration / 1e6, e.connect, e.read, e.write, e.status, e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9), latency.max))
end
