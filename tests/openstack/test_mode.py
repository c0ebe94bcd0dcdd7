"""How the role chooses the mode of a host: by `calico_mode`, `provider`, the firmware's words and the kernel."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from kit_paths import COLLECTION  # noqa: E402

sys.path.insert(0, str(COLLECTION / "plugins/modules"))
import calico_preflight  # noqa: E402


class Mode(unittest.TestCase):
    """The choice, without a host."""

    def chosen(self, mode="auto", provider="", machine="", ipip=True, credentials=True):
        """The mode, and the sentence that stops the play."""
        settings = {"mode": mode, "provider": provider, "openstack_credentials": credentials}
        mode, _, problem = calico_preflight.choose_mode(settings, ipip, machine)
        return mode, problem

    def test_auto_by_provider_machine_and_kernel(self):
        for expected, options in (
            ("bgp", {"provider": "openstack"}),
            ("bgp", {"machine": "openstack"}),
            ("vxlan", {"provider": "azure"}),
            ("vxlan", {"machine": "azure"}),
            ("ipip", {"provider": "aws"}),
            ("ipip", {"provider": "bare-metal", "machine": "openstack", "credentials": False}),
            ("ipip", {}),
            ("vxlan", {"provider": "gce", "ipip": False}),
        ):
            with self.subTest(options):
                self.assertEqual(self.chosen(**options), (expected, None))

    def test_openstack_without_credentials_stops_and_names_the_mode(self):
        for options in ({"provider": "openstack"}, {"machine": "openstack"}):
            _, problem = self.chosen(credentials=False, **options)
            self.assertRegex(problem, "no credentials for Neutron.*calico_mode to ipip or vxlan")

    def test_a_mode_that_is_set_stands(self):
        for mode in ("ipip", "vxlan", "bgp"):
            self.assertEqual(self.chosen(mode, provider="openstack", credentials=False), (mode, None))
        self.assertRegex(self.chosen("ipip", ipip=False)[1], "calico_mode is 'ipip'.*no IPIP.*vxlan")

    def test_the_firmware_names_the_cloud(self):
        for expected, fields in (
            ("openstack", {"product_name": "OpenStack Nova\n"}),
            ("openstack", {"product_name": "OpenStack Compute\n"}),
            ("openstack", {"product_name": "KVM\n", "chassis_asset_tag": "OpenStack Nova\n"}),
            ("openstack", {"sys_vendor": "OpenStack Foundation\n"}),
            ("azure", {"chassis_asset_tag": calico_preflight.AZURE_TAG}),
            ("", {"sys_vendor": "QEMU\n", "product_name": "Standard PC\n"}),
            ("", {}),
        ):
            with self.subTest(fields), tempfile.TemporaryDirectory() as folder:
                for name, text in fields.items():
                    pathlib.Path(folder, name).write_text(text)
                self.assertEqual(calico_preflight.cloud(folder), expected)


if __name__ == "__main__":
    unittest.main()
