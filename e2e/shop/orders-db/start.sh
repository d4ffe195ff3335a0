#!/bin/sh
# Makes the database when its volume is empty, and becomes PostgreSQL. Nobody connects before the orders are in.
set -eu
PATH=/usr/lib/postgresql/15/bin:$PATH

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  umask 077
  printf '%s\n' "$ORDERS_PASSWORD" >/tmp/password
  initdb --username=shop --pwfile=/tmp/password --auth=scram-sha-256 --no-sync >/dev/null
  rm /tmp/password
  # Single-user mode: a statement ends with a semicolon and an empty line (-j).
  echo 'create database shop;' | postgres --single -j postgres >/dev/null
  postgres --single -j shop </srv/orders-db/orders.sql >/dev/null
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp -c jit=off -c fsync=off
