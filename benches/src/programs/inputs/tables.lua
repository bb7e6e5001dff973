-- Tables and strings; trees that are built and dropped.
local function tree(depth)
  if depth == 0 then return {} end
  return { tree(depth - 1), tree(depth - 1), name = "node" .. depth }
end
local function count(node)
  return node[1] and 1 + count(node[1]) + count(node[2]) or 1
end
local nodes, words = 0, {}
for turn = 1, tonumber(arg[1]) do
  nodes = nodes + count(tree(11))
  for place = 1, 2000 do
    local name = "word" .. turn * place % 10007
    words[name] = (words[name] or "") .. place % 10
    if #words[name] > 200 then words[name] = nil end
  end
end
local bytes = 0
for _, word in pairs(words) do bytes = bytes + #word end
print(nodes, bytes)
