FROM python:3.11-slim
WORKDIR /app
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
RUN pip install --no-cache-dir setuptools==80.9.0 && pip install --no-cache-dir --no-deps --no-build-isolation . \
    && useradd --system coffer
USER coffer
CMD ["coffer", "serve"]
