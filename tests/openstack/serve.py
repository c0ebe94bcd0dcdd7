"""Serves a WSGI application of OpenStack on a socket that the parent opened: `serve.py MODULE DESCRIPTOR`."""

import importlib
import socket
import socketserver
import sys
import threading
import wsgiref.simple_server


class Handler(wsgiref.simple_server.WSGIRequestHandler):
    """Logs requests without looking up names."""

    def address_string(self):
        return self.client_address[0]


class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    """A thread a request, as many at once as there are clients."""

    daemon_threads = True


def main():
    """Loads the application, then serves until the parent closes its end of standard input."""
    module, descriptor = sys.argv[1], int(sys.argv[2])
    # OpenStack's own parsers of the command line must not see it.
    sys.argv = [module]
    listener = socket.socket(fileno=descriptor)
    server = Server(listener.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_name, server.server_port = "127.0.0.1", listener.getsockname()[1]
    server.setup_environ()
    server.set_app(importlib.import_module(module).application)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("serving", module, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
