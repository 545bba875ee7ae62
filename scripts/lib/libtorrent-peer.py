"""One libtorrent peer for scripts/bench: python libtorrent-peer.py TORRENT FOLDER PORT DONE [PEER_PORT ...]

Without peers it seeds what is in the folder, unchecked; else it downloads from those ports of 127.0.0.1 and makes the
file DONE when it has everything. Plain TCP, no discovery. Runs until it is killed.
"""
import pathlib
import sys

import libtorrent as lt

torrent, folder, port, done, *peers = sys.argv[1:]
session = lt.session({
    "listen_interfaces": f"127.0.0.1:{port}",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "allow_multiple_connections_per_ip": True,
    "out_enc_policy": int(lt.enc_policy.pe_disabled),
    "in_enc_policy": int(lt.enc_policy.pe_disabled),
    "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
})
parameters = lt.add_torrent_params()
parameters.ti = lt.torrent_info(torrent)
parameters.save_path = folder
parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
if not peers:
    parameters.flags |= lt.torrent_flags.seed_mode
handle = session.add_torrent(parameters)
for peer in peers:
    handle.connect_peer(("127.0.0.1", int(peer)))
while True:
    session.wait_for_alert(1000)
    for alert in session.pop_alerts():
        if isinstance(alert, lt.torrent_finished_alert):
            pathlib.Path(done).touch()
        elif "error" in type(alert).__name__:
            print(alert, flush=True)
