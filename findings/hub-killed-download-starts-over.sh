#!/usr/bin/env bash
# A download by huggingface_hub that is killed starts over, and what it had stays on the disk.
#
# Each call downloads to a file with a random part in its name, so that two processes can't write the same one. It is
# deleted when the download fails with an error. After a kill (out of memory, end of a job's time) it stays: the next call
# does not look for it, asks the server for the whole file without a Range header, and leaves it in the cache for good.
# A job that is killed after two hours never has a file that takes three.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cat >"$folder/server.py" <<'PY'
import http.server
import sys
import time

SIZE, STEP = 24 << 20, 1 << 20
DATA = bytes(range(256)) * (SIZE // 256)


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def head(self):
        self.send_response(200)
        self.send_header("ETag", '"0123456789abcdef0123456789abcdef01234567"')
        self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(SIZE))
        self.end_headers()

    do_HEAD = head

    def do_GET(self):
        if not self.path.endswith("/weights.bin"):
            self.send_error(404)
            return
        print("asked for", self.headers.get("Range", "the whole file"), flush=True)
        self.head()
        try:
            for start in range(0, SIZE, STEP):
                self.wfile.write(DATA[start : start + STEP])
                time.sleep(0.1)
        except ConnectionError:  # the client was killed
            self.close_connection = True

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
open(sys.argv[1], "w").write(str(server.server_address[1]))
server.serve_forever()
PY
cat >"$folder/download.py" <<'PY'
import sys

from huggingface_hub import hf_hub_download

hf_hub_download("someone/model", "weights.bin", cache_dir=sys.argv[1])
PY
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check huggingface_hub==2.4.0
"$folder/venv/bin/python" -c 'import huggingface_hub; print("huggingface_hub", huggingface_hub.__version__)'
python3 "$folder/server.py" "$folder/port" >"$folder/asked" &
server=$!
until [ -s "$folder/port" ]; do sleep 0.1; done
export HF_ENDPOINT="http://127.0.0.1:$(cat "$folder/port")" HF_HUB_DISABLE_PROGRESS_BARS=1
cache="$folder/cache"
partial() { find "$cache" -name '*.incomplete' -size +4M 2>/dev/null | wc -l; }
"$folder/venv/bin/python" "$folder/download.py" "$cache" &
client=$!
until [ "$(partial)" = 1 ]; do sleep 0.1; done
kill -KILL "$client"
wait "$client" 2>/dev/null || true
echo "killed in the middle: $(partial) partial file"
"$folder/venv/bin/python" "$folder/download.py" "$cache"
echo "downloaded: $(partial) partial file"
cat "$folder/asked"
diff <(sort -u "$folder/asked") <(echo "asked for the whole file")
[ "$(partial)" = 1 ]
# Seen with huggingface_hub 2.4.0:
#   killed in the middle: 1 partial file
#   downloaded: 1 partial file
#   asked for the whole file
#   asked for the whole file
