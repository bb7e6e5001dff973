# A server, a mixed load of a given number of requests, and what it holds afterwards.
redis-server --port 0 --unixsocket socket --save '' --appendonly no --daemonize no \
    --logfile server.log &
server=$!
trap 'kill $server 2>/dev/null' EXIT
tries=0
until redis-cli -s socket ping >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || exit 1
    sleep 0.01
done
redis-benchmark -s socket -q -n "$1" -c 20 -P 16 -r 10000 -d 100 --seed 1 \
    -t set,get,incr,lpush,lpop,sadd,hset,zadd,mset >benchmark.log
i=0
while [ $i -lt "$1" ]; do
    i=$((i + 20))
    echo "APPEND text$((i % 700)) part$i"
    echo "ZADD board $((i * 7919 % 1009)) member$((i % 500))"
done | redis-cli -s socket | cksum
redis-cli -s socket zrange board 0 -1 withscores | cksum
redis-cli -s socket shutdown nosave
wait $server
trap - EXIT
