"""No devbox is rejected while `injection.as` changes."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

from harness.controlplane import ControlPlane
from integration.support.chart import DEVBOX, first_container, install


def test_every_devbox_gets_its_secrets_while_injection_as_changes(controlplane: ControlPlane) -> None:
    install(controlplane)
    stop = Event()

    def create() -> list[str]:
        found = list[str]()
        while not stop.is_set():
            (field,) = {"envFrom", "volumeMounts"} & first_container(controlplane, DEVBOX).keys()
            found.append(field)
        return found

    with ThreadPoolExecutor() as threads:
        creating = threads.submit(create)
        try:
            for how, field in (("files", "volumeMounts"), ("env", "envFrom")) * 2:
                install(controlplane, f"--set=injection.as={how}", field=field)
        finally:
            stop.set()
        assert {"envFrom", "volumeMounts"} == set(creating.result())
