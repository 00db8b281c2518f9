"""Results for people to read: figures, image grids and one self-contained HTML page."""

from headstart.report.demo import verdict, write_demo_report
from headstart.report.experiment import write_experiment_page
from headstart.report.folder import write_folder_page
from headstart.report.images import image_grid, is_images, save_png
from headstart.report.page import check_libraries
from headstart.report.plan import write_plan_page
from headstart.report.table import results_table

__all__ = [
    "check_libraries",
    "image_grid",
    "is_images",
    "results_table",
    "save_png",
    "verdict",
    "write_demo_report",
    "write_experiment_page",
    "write_folder_page",
    "write_plan_page",
]
