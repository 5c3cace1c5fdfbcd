"""GDAL's own COG validator. It ships with the system's GDAL, for the system's Python."""

import subprocess


def gdal_validate(path):
    command = ["/usr/bin/python3", "-m", "osgeo_utils.samples.validate_cloud_optimized_geotiff", "-q", "--full-check=yes", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
