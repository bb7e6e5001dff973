# A graph of objects that comes and goes, dictionaries that grow.
import sys


class Node:
    def __init__(self, name, left, right):
        self.name, self.left, self.right = name, left, right


def tree(depth, name):
    if depth == 0:
        return None
    return Node(name, tree(depth - 1, name * 2 % 65521), tree(depth - 1, name * 3 % 65521))


def total(node):
    return node.name + total(node.left) + total(node.right) if node else 0


size, words, found = int(sys.argv[1]), {}, 0
kept = [tree(10, 1) for _ in range(4)]
for turn in range(size):
    kept[turn * 7919 % 4] = tree(9 + turn % 3, turn)
    for place in range(800):
        words.setdefault(f"word{turn * place % 30011}", []).append(place)
    found += total(kept[turn % 4])
print(found, len(words), sum(len(places) for places in words.values()))
