# Builds, prints and parses JSON.
import hashlib, json, sys

size = int(sys.argv[1])
table = {f"key{i}": [i, str(i) * (i % 20), {"square": i * i}] for i in range(size)}
digest = hashlib.sha256()
for _ in range(2):
    text = json.dumps(table)
    table = json.loads(text)
    digest.update(text.encode())
print(digest.hexdigest())
