# One image for all services and jobs: which of them a container runs is its arguments, such as `services/main.ts order`.

FROM node:24-bookworm-slim AS dependencies
WORKDIR /souk
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund

FROM node:24-bookworm-slim
WORKDIR /souk
# What changes seldom comes first, so that a change of the source makes only the last layers anew.
COPY --from=dependencies /souk/node_modules ./node_modules
COPY package.json ./
COPY gen ./gen
COPY tools ./tools
COPY runtime ./runtime
COPY services ./services
# Production falls back to nothing that is embedded; nothing is written but what /var/lib/souk is given for.
ENV NODE_ENV=production SOUK_ENV=production SOUK_DATA_DIR=/var/lib/souk
# What the programs load is compiled here once, with the flags below and for this user, instead of in every pod that starts.
ENV NODE_COMPILE_CACHE=/souk/.compiled
RUN install -d -o 1000 -g 1000 /souk/.compiled
USER 1000:1000
RUN for program in services/main.ts tools/migrate.ts tools/databases.ts; do \
      node --disable-warning=ExperimentalWarning --max-semi-space-size=8 $program --help >/dev/null || exit 1; done
EXPOSE 8080
# Node is the first process of the container, so that it gets the signal to end; it ends by itself when calls in flight have finished.
ENTRYPOINT ["node", "--disable-warning=ExperimentalWarning", "--max-semi-space-size=8"]
CMD ["services/main.ts"]
