// Objects on the script's own heap; buffers, maps and JSON that reach the system's.
const size = Number(process.argv[2]);
const words = new Map();
for (let i = 1; i <= size; i++) {
  const name = `word${(i * 7919) % 20011}`;
  if (!words.has(name)) words.set(name, []);
  words.get(name).push(i);
}
const text = JSON.stringify([...words]);
let check = JSON.parse(text).length;
let kept = [];
for (let i = 0; i < size / 4; i++) {
  const buffer = Buffer.allocUnsafeSlow(64 + ((i * 7919) % 4096));
  buffer[0] = i & 255;
  kept[i % 1000] = buffer;
}
for (const buffer of kept) check += buffer.length + buffer[0];
console.log(text.length, check);
