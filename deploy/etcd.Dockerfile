# etcd from Debian's own packages, for deploy/docker-compose.etcd.yml. An image of etcd's makers does
# as well (TANGELO_ETCD_IMAGE); this one needs no image registry: deploy/base-images.sh makes its
# base.

ARG RUNTIME_IMAGE=debian:bookworm-slim
FROM ${RUNTIME_IMAGE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends etcd-server etcd-client \
    && rm -rf /var/lib/apt/lists/*
# A volume takes over the owner of what it is put on.
RUN mkdir -p /var/lib/etcd && chown etcd:etcd /var/lib/etcd && chmod 700 /var/lib/etcd
VOLUME /var/lib/etcd
USER etcd
EXPOSE 2379 2380
CMD ["etcd"]
