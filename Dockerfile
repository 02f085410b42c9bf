# One image for operator and daemons, non-root, read-only root file system; data in the volume /data.
# Whatever comes from elsewhere is named by its hash: the base, what builds (deploy/build.txt, `make build-lock`), and what it
# is built of, which `uv export` takes from uv.lock.
ARG BASE=python:3.12.15-slim-bookworm@sha256:54c85f3c47607a77f32adec749d3c81d1348bf25833671f512b26a9b6d778cb3
FROM ${BASE} AS build
ARG TARGETARCH
WORKDIR /build
# LevelDB's binding has no wheel for arm64: it is built there. Elsewhere the compiler is for the digests in one pass
# (deploy/extension.py); with --build-arg COMPILER= hashlib does them.
ARG COMPILER="gcc libc6-dev"
RUN packages=$COMPILER; [ "$TARGETARCH" != arm64 ] || packages="build-essential python3-dev libleveldb-dev liberasurecode-dev"; \
    [ -z "$packages" ] || { apt-get update && apt-get install -y --no-install-recommends $packages; }
COPY pyproject.toml uv.lock README.md LICENSE deploy/build.txt ./
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --no-deps --require-hashes -r build.txt \
 && /opt/build/bin/uv export --quiet --frozen --no-dev --extra daemon --extra operator --no-emit-project -o requirements.txt \
 && python3 -m venv /opt/s4 && /opt/s4/bin/pip install --no-cache-dir --no-compile --no-deps --require-hashes -r requirements.txt
COPY deploy/extension.py deploy/
COPY daemon daemon
COPY operator operator
# Where a compiler was asked for, what it is for has to be there: a wheel without it is built in silence.
# Bytecode is made here, once: a pod's root is read-only, and it would compile everything at each start.
RUN /opt/build/bin/pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation -w wheels . && /opt/s4/bin/pip install --no-cache-dir --no-compile --no-deps wheels/*.whl \
 && { [ -z "$COMPILER" ] || [ "$(uname -m)" != x86_64 ] || ls /opt/s4/lib/python3*/site-packages/s4/s3/_fused.abi3.so \
      || { echo "the digests in C were not built: the base lacks Python's headers, or build with --build-arg COMPILER="; exit 1; }; } \
 && /opt/s4/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/s4/lib

FROM ${BASE}
ARG TARGETARCH
LABEL org.opencontainers.image.title="S4" org.opencontainers.image.description="S3 object storage for Kubernetes" org.opencontainers.image.licenses="Apache-2.0"
RUN if [ "$TARGETARCH" = arm64 ]; then apt-get update && apt-get install -y --no-install-recommends libleveldb1d liberasurecode1 && rm -rf /var/lib/apt/lists/*; fi
RUN python3 -m compileall -q -j 0 -x '/(test|tests|site-packages|dist-packages)/' --invalidation-mode unchecked-hash "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=build /opt/s4 /opt/s4
ENV PATH=/opt/s4/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 S4_LOG_FORMAT=json
# What is published must listen where others come from: health and metrics in the clear, admin calls over TLS (or from inside).
ENV S4_ADMIN_LISTEN=:9001
RUN mkdir /data && chown 10001:10001 /data
USER 10001:10001
VOLUME /data
EXPOSE 9000 9001
ENTRYPOINT ["s4"]
CMD ["server", "/data/store"]
