# shellcheck shell=sh
# The first start of docker-compose.cluster.yml's database, before anybody can connect. The setting holds from the next start on:
# until then there is no standby to wait for.
psql --no-psqlrc --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --command "alter system set synchronous_standby_names = '*'"
echo "host replication all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
