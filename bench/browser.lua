-- Requests as browsers send them: 600 header sets with different User-Agent, languages, cookies and codings. In half of
-- the requests, If-None-Match is the newest ETag seen; in the other half, it is stale and changes every second.
-- Arguments: the coding that this server chooses for each Accept-Encoding below.
local SETS = 600
local accepts = { "gzip, deflate, br, zstd", "gzip, deflate, br", "gzip, deflate" }
local languages = {
  "en-US,en;q=0.9", "en-GB,en;q=0.9", "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7", "fr-FR,fr;q=0.9,en-US;q=0.8,en;q=0.7",
  "es-ES,es;q=0.9", "it-IT,it;q=0.9,en;q=0.8", "pl,en-US;q=0.7,en;q=0.3", "nl-NL,nl;q=0.9,en;q=0.8", "pt-BR,pt;q=0.9",
  "sv-SE,sv;q=0.9,en;q=0.8", "ja,en-US;q=0.9,en;q=0.8", "zh-CN,zh;q=0.9", "ko-KR,ko;q=0.9", "tr-TR,tr;q=0.9,en;q=0.8",
}
local systems = {
  "Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11; Linux x86_64", "Linux; Android 10; K",
}
local platforms = { '"Windows"', '"macOS"', '"Linux"', '"Android"' }

local sets, newest = {}, {}
local count = 0

local function pick(list) return list[math.random(#list)] end

local function chrome()
  local version, system = math.random(118, 142), math.random(#systems)
  return "User-Agent: Mozilla/5.0 (" .. systems[system] .. ") AppleWebKit/537.36 (KHTML, like Gecko) Chrome/" ..
    version .. ".0.0.0 " .. (system == 4 and "Mobile " or "") .. "Safari/537.36\r\n" ..
    'sec-ch-ua: "Chromium";v="' .. version .. '", "Not;A=Brand";v="99", "Google Chrome";v="' .. version .. '"\r\n' ..
    "sec-ch-ua-mobile: " .. (system == 4 and "?1" or "?0") .. "\r\n" ..
    "sec-ch-ua-platform: " .. platforms[system] .. "\r\n"
end

local function firefox()
  local version = math.random(115, 145)
  return "User-Agent: Mozilla/5.0 (" .. systems[math.random(3)] .. "; rv:" .. version .. ".0) Gecko/20100101 Firefox/" ..
    version .. ".0\r\n"
end

local function safari()
  local version = math.random(15, 18) .. "." .. math.random(0, 6)
  return "User-Agent: Mozilla/5.0 (iPhone; CPU iPhone OS " .. version:gsub("%.", "_") ..
    " like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/" .. version .. " Mobile/15E148 Safari/604.1\r\n"
end

function init(args)
  math.randomseed(20121106)
  for i = 1, SETS do
    local class = i % 10 < 6 and 1 or (i % 10 < 9 and 2 or 3)
    local agent = class == 1 and chrome() or (class == 2 and firefox() or safari())
    local cookie = string.format("Cookie: _ga=GA1.1.%d.%d; session=%08x%08x; consent=1\r\n", math.random(1e9),
      math.random(1.6e9, 1.8e9), math.random(2 ^ 31 - 1), math.random(2 ^ 31 - 1))
    sets[i] = {
      coding = args[class] or "identity",
      head = "GET " .. wrk.path .. " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\n" ..
        "Connection: keep-alive\r\n" .. agent .. "Accept: application/json, text/plain, */*\r\n" ..
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n" ..
        "Referer: http://" .. wrk.host .. "/election/" .. math.random(40) .. "\r\n" ..
        "Accept-Encoding: " .. accepts[class] .. "\r\nAccept-Language: " .. pick(languages) .. "\r\n" ..
        cookie .. "If-None-Match: ",
    }
  end
end

function request()
  count = count + 1
  local set = sets[math.random(SETS)]
  local tag = count % 2 == 0 and newest[set.coding] or ('"' .. os.time() .. '-stale"')
  return set.head .. tag .. "\r\n\r\n"
end

function response(status, headers)
  if status == 200 then
    local coding = headers["Content-Encoding"] or headers["content-encoding"] or "identity"
    newest[coding] = headers["ETag"] or headers["Etag"] or headers["etag"]
  end
end
